"""What people use instead: each takes the same messages from the same Redis channel.

They stand here as their users write them, with one connection to Redis for all viewers.
"""
