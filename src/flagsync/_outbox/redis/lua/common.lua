-- What every script begins with. The keys are always these, so that a cluster and a proxy see all that a script uses.
--
-- meta          store (a random number), format (how the keys are used), version (the highest one given), accounts (how
--               many there were); of the lease owner, until, seconds
-- destinations  destination -> number
-- accounts      account -> number, time of last use, counts; "*" has the counts of all
-- latest        number of a destination and key -> row: what is known of the last message of a key
-- queue         id of a waiting message, by number of its destination and version
-- waiting       id -> record: the message
-- tails         digest -> content; tail_uses: digest -> the version that used it last
-- absences      destination, NUL and the text of a property -> since when it is absent
local meta, destinations, accounts, latest = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local queue, waiting, tails, tail_uses, absences = KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000

local FORMAT = '1' -- another one, whenever keys are used in another way

-- A score is the number of a destination and a version: 10 and 43 bits of the 53 that are exact.
local VERSIONS, MAX_DESTINATIONS = 8796093022208, 1023
local NEVER, COUNTS = -math.huge, 12
local ACCEPTED, DELIVERED, UNCHANGED, SUPERSEDED, DROPPED, REJECTED = 1, 2, 3, 4, 5, 6
local ACCOUNT = '>' .. string.rep('d', 2 + COUNTS)
-- A row: flags, id or time of acceptance, boot, when it was evaluated on the clocks of the host and of the server,
-- evaluation, for how many seconds it counts as accepted; if it waits, its account; fingerprint.
local ROW, WAITS, KNOWN, REPLACES = '>Bdc6ddc8f', 1, 2, 4
local NO_ROW = struct.pack(ROW, 0, NEVER, '      ', 0, 0, '        ', 0)

-- A full server refuses a script that begins with a write which needs memory, but not one that has begun to write.
local function begin_although_memory_is_full()
    redis.call('HDEL', meta, 'nothing')
end

local function text(number)
    return string.format('%.0f', number)
end

local function field_of(number, key)
    return struct.pack('>H', number) .. key
end

local function bounds_of(number)
    return text(number * VERSIONS), text((number + 1) * VERSIONS - 1)
end

-- Return the id and the score of the first waiting message of a destination.
local function first_of(number)
    local low, high = bounds_of(number)
    return unpack(redis.call('ZRANGEBYSCORE', queue, low, high, 'WITHSCORES', 'LIMIT', 0, 1))
end

local function last_version()
    return tonumber(redis.call('HGET', meta, 'version') or 0)
end

-- A person or a server that evicts may delete one of the keys. What the others say is wrong then: numbers of other
-- destinations, versions that are given again, messages that wait for ever. So they are deleted, and the store is new;
-- but the lease goes on. The keys latest and tail_uses only spare work, and absences stands for itself.
local function delete_remains()
    local function has(key) -- of a key of another kind, which is somebody else's, it raises an error
        return redis.call('HLEN', key) > 0
    end
    local store, version = unpack(redis.call('HMGET', meta, 'store', 'version'))
    local pending = redis.call('ZCARD', queue)
    local waits = pending > 0
    if redis.call('HLEN', waiting) ~= pending
        or (not store and (waits or has(destinations) or has(accounts) or has(latest) or has(tails) or has(tail_uses)))
        or (version and not has(accounts))
        or ((waits or has(latest)) and not has(destinations))
        or (waits and not has(tails))
    then
        redis.call('UNLINK', destinations, accounts, latest, queue, waiting, tails, tail_uses)
        redis.call('HDEL', meta, 'store', 'version', 'accounts')
    end
end
if redis.call('HEXISTS', meta, 'store') == 1 and redis.call('HGET', meta, 'format') ~= FORMAT then
    return redis.error_reply('FORMAT another version of flagsync uses the namespace')
end
delete_remains()

-- Return the number of the store, which gets one if it is new.
local function store_number(new)
    local known = redis.call('HGET', meta, 'store')
    if not known then
        redis.call('HSET', meta, 'store', new, 'format', FORMAT)
    end
    return known or new
end

-- Return whether a row waits, is of a known evaluation, and of a message that replaces others; and its first columns.
local function parse_row(row)
    local flags, value, boot, evaluated_at, moment = struct.unpack('>Bdc6dd', row)
    return flags % 2 == 1, flags % 4 >= KNOWN, flags >= REPLACES, value, boot, evaluated_at, moment
end

-- A message as it comes: the place of its destination, whether it replaces others, whether its evaluation is known, sizes
-- of fingerprint, key and body; when it was evaluated, evaluation, resend_after_seconds, tail; fingerprint, key, body.
-- SIZES is the beginning of HEAD.
local SIZES, HEAD, HEAD_SIZE = '>HBBBI4I4', '>HBBBI4I4dc8dc16', 53
-- A record: account, when it was evaluated on the clock of the server, boot; message.
local RECORD, RECORD_SIZE = '>c8dc6', 22

-- Return the key and the digest of the tail of a record.
local function parse_record(record)
    local fingerprint_size, key_size = struct.unpack('>BI4', record, RECORD_SIZE + 5)
    local key_at = RECORD_SIZE + HEAD_SIZE + fingerprint_size
    return string.sub(record, key_at + 1, key_at + key_size), string.sub(record, RECORD_SIZE + 38, RECORD_SIZE + 53)
end

-- Return how many messages are remembered beyond a bound.
local function excess_of(max_remembered)
    return redis.call('HLEN', latest) - redis.call('ZCARD', queue) - max_remembered
end

-- Counts of accounts, written together at the end.
local changes = {}

local function count(account, outcome, replaces)
    local change = changes[account]
    if not change then
        change = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
        changes[account] = change
    end
    change[outcome] = change[outcome] + 1
    if not replaces then -- an event, which is counted apart, too
        change[outcome + 6] = change[outcome + 6] + 1
    end
end

local function write_account(account, change, is_in_use)
    local value = redis.call('HGET', accounts, account)
    local values = value and {struct.unpack(ACCOUNT, value)}
        or {redis.call('HINCRBY', meta, 'accounts', 1), now, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
    for place = 1, COUNTS do
        values[2 + place] = values[2 + place] + change[place]
    end
    values[2] = is_in_use and now or values[2]
    redis.call('HSET', accounts, account, struct.pack(ACCOUNT, unpack(values, 1, 2 + COUNTS)))
end

-- Write the counts. The account of a process that stores is in use.
local function write_counts(own)
    local every = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
    if own and not changes[own] then
        changes[own] = {unpack(every)}
    end
    for account, change in pairs(changes) do
        for place = 1, COUNTS do
            every[place] = every[place] + change[place]
        end
        write_account(account, change, account == own)
    end
    write_account('*', every, true)
end
