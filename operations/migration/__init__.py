"""The move from the values files of the old Helm chart to the config of a stack, done once for each stack.

Only `operations/__main__.py` imports it: delete the folder, what names it there, and its tests, when no
stack is left to move.
"""
