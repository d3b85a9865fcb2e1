"""Commands of the science, one module each, and the command line that offers them all.

A command is a function, or a group of commands, that an entry point of the group
`gigatok.commands` names; `gigatok.commands.application` finds them.
"""
