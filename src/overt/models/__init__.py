"""Model kinds: each is a function from a fitted model to a :class:`ModelFiles` value, which any store can carry.

A third party adds a kind by writing such a function; nothing is registered, ``run.log_model`` takes the value.
"""
