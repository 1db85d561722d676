"""Rollback: the config of a stack becomes what it was at a revision of its release, and is deployed.

`helm rollback` would leave Pulumi believing something else, and the next `up` would undo it. Here the
values that Helm has recorded go back into the stack file, the preview shows what that changes, and
`up` deploys it as a new revision. Credentials stay as they are today.
"""
