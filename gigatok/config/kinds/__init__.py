"""Kinds of things that a trial chooses by name, with their settings: one registry each.

Built-in ones and those of plug-ins come through the same `register`. Imports no torch: what needs
it is named as `package.module:Name`.
"""
