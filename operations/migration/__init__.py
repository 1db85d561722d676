"""The move from the values files of the old Helm chart to the config of a stack, done once for each stack.

Nothing else imports this folder: delete it, and its tests, when no stack is left to move.
"""
