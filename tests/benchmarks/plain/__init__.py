"""Published architectures written plainly, to compare ours with: the same weights load into both.

Every layer is the one of torch that the papers name, in torch's default memory layout.
"""
