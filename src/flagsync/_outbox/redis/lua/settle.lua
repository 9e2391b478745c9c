-- Settle messages of one destination that still have the version that was sent: they were accepted or rejected, or are
-- to be last.
local number = tonumber(redis.call('HGET', destinations, ARGV[2]))
if ARGV[1] ~= redis.call('HGET', meta, 'store') or not number then
    return 0 -- the store was emptied, and has other messages with these versions
end
local outcome, low, high = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
begin_although_memory_is_full()

-- Of each message, one after another: version, account, whether it replaces others, tail, size of the key; key.
local SETTLED, messages = '>dc8Bc16I4', ARGV[6]

-- The messages were the oldest, so that no others wait between them.
local ids, first = {}, number * VERSIONS
local found = redis.call('ZRANGEBYSCORE', queue, text(first + low), text(first + high), 'WITHSCORES')
for place = 1, #found, 2 do
    ids[tonumber(found[place + 1]) - first] = found[place]
end

local version, ended, fields = last_version(), {}, {}
local at = 1
while at <= #messages do
    local sent, account, replaces, tail, key_size, key_at = struct.unpack(SETTLED, messages, at)
    local key, id = string.sub(messages, key_at, key_at + key_size - 1), ids[sent]
    at = key_at + key_size
    ids[sent] = nil -- a message ends once
    if id and outcome == 'last' then
        version = version + 1
        redis.call('ZADD', queue, text(first + version), id)
        redis.call('HSET', tail_uses, tail, text(version))
    elseif id then
        local counted = outcome == 'accepted' and DELIVERED or REJECTED
        count(account, counted, replaces == 1)
        ended[#ended + 1], fields[#fields + 1] = id, field_of(number, key)
    end
end

if #ended > 0 then
    redis.call('ZREM', queue, unpack(ended))
    redis.call('HDEL', waiting, unpack(ended))
    local values = {}
    for place, row in ipairs(redis.call('HMGET', latest, unpack(fields))) do
        local waits, _, _, value = parse_row(row or NO_ROW)
        if waits and value == tonumber(ended[place]) then
            local begin = struct.pack('>Bd', string.byte(row) - WAITS, outcome == 'accepted' and now or NEVER)
            values[#values + 1] = fields[place]
            values[#values + 1] = begin .. string.sub(row, 10, 43) .. string.sub(row, 52)
        end
    end
    if #values > 0 then
        redis.call('HSET', latest, unpack(values))
    end
end
redis.call('HSET', meta, 'version', text(version))
write_counts()
return 1
