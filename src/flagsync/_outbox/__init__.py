"""Pending messages: a compacted log, of each key the latest.

contract    Message, Destination, Claim; the outbox as the encoder, the sender and the statistics see it
memory      MemoryOutbox: of one process, lost with it; queue is what waits for one destination
durable     DurableOutbox: a memory outbox before a Backend that processes share; its parts are options, schedule,
            outage, sent and accounting
backend     Backend, the contract of a shared store
sqlite      SQLiteBackend, the backend in a file; change is one transaction of it, rows what it reads and writes,
            schema its tables and queries
file        how a client and its operators open such a file
"""
