-- Return the counts of all messages ever stored.
return redis.call('HGET', accounts, '*') or ''
