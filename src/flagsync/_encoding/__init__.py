"""Evaluated flags become messages. Pure, except for the encoder's thread.

encoder      Encoder: the queue of calls, of which the latest of an identity wins, and the thread that encodes them
pacer        Pacer: work and rest in turn, so that callers are not held up
calls        Calls: what waits is text, bytes and numbers; the environment documents that calls refer to
evaluation   the insides of ``Flags``, and Flagsmith's engine
document     Document: an environment document in parts, the same for every identity, for equal traits, or neither
division     divide: which flag is in which part
profile      ProfileEncoder: a call -> a message that sets properties; numbers for calls that must have the same result
distinct_id  identifier -> ``distinct_id``;  properties  flags -> JSON;  envelope  the Mixpanel SDK's records
"""
