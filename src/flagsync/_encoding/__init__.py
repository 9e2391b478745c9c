"""Evaluated flags become messages. Pure, except for the encoder's thread.

encoder      Encoder: the queue of calls, of which the latest of an identity wins, and the thread that encodes them
pacer        Pacer: work and rest in turn, so that callers are not held up
evaluation   the insides of ``Flags``; numbers for evaluations that must have the same result
profile      ProfileEncoder: an identity and its flags -> a message that sets properties
distinct_id  identifier -> ``distinct_id``;  properties  flags -> JSON;  envelope  the Mixpanel SDK's records
"""
