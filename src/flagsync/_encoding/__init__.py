"""Turns evaluated flags into messages. Pure, except for the encoder's thread.

encoder      Encoder: takes calls, and encodes them in its thread
inbox        Inbox: the calls that wait to be encoded; the latest of each identity wins
pacer        Pacer: lets the thread work and rest in turn, so that it does not hold up callers
calls        Calls: makes calls of text, bytes and numbers, and keeps the environment documents that they refer to
evaluation   the insides of ``Flags``, and Flagsmith's engine
document     Document: an environment document in parts, by what decides on a flag
division     divide: decides which flag is in which part
split        Split: a flag with variants, of which a hash of the identity selects one
profile      ProfileEncoder: a call -> a message that sets properties, and a key that tells which results must be equal
deletions    Deletions: which properties of deleted features are removed
distinct_id  identifier -> ``distinct_id``
properties   flags -> JSON
envelope     records of the Mixpanel SDK
"""
