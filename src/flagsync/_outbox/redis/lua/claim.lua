-- Read some of the waiting messages of a destination behind a version. Without a destination, take the one that is next.
local number, after, most, max_bytes, turn = tonumber(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local READ_AT_ONCE = 50
-- Before a record: version, whether it is the latest of its key; if so, boot and time of its last evaluation on both
-- clocks, since an equal message may have been evaluated later.
local CLAIMED = '>dBc22'
local names, resting = {}, {}
for place = 6, #ARGV do
    resting[ARGV[place]] = true
end

local order = {}
local known = redis.call('HGETALL', destinations)
for place = 1, #known, 2 do
    local one = tonumber(known[place + 1])
    names[one] = known[place]
    if not resting[known[place]] then
        order[#order + 1] = one
    end
end
if number == 0 then
    table.sort(order, function(one, other)
        if (one > turn) ~= (other > turn) then
            return one > turn
        end
        return one < other
    end)
    for _, one in ipairs(order) do
        if number == 0 and first_of(one) then
            number = one
        end
    end
end
if number == 0 then
    return {}
end

local _, high = bounds_of(number)
local low = '(' .. text(number * VERSIONS + tonumber(after))
local found = redis.call('ZRANGEBYSCORE', queue, low, high, 'WITHSCORES', 'LIMIT', 0, most)
local messages, bytes, digests, has_more = {}, 0, {}, #found == 2 * tonumber(most)
for start = 1, #found, 2 * READ_AT_ONCE do
    if bytes > max_bytes then
        has_more = true
        break
    end
    local ids, versions, fields = {}, {}, {}
    for place = start, math.min(start + 2 * READ_AT_ONCE, #found) - 1, 2 do
        ids[#ids + 1] = found[place]
        versions[#versions + 1] = tonumber(found[place + 1]) - number * VERSIONS
    end
    local records = redis.call('HMGET', waiting, unpack(ids))
    for place, record in ipairs(records) do
        local key, tail = parse_record(record)
        fields[place], digests[tail], bytes = field_of(number, key), true, bytes + #record
    end
    local rows = redis.call('HMGET', latest, unpack(fields))
    for place, record in ipairs(records) do
        local waits, _, _, value = parse_row(rows[place] or NO_ROW)
        local is_latest = waits and value == tonumber(ids[place])
        local when = string.sub(is_latest and rows[place] or NO_ROW, 10, 31)
        messages[#messages + 1] = struct.pack(CLAIMED, versions[place], is_latest and 1 or 0, when)
        messages[#messages + 1] = record
    end
end
local contents = {}
for digest in pairs(digests) do
    contents[#contents + 1] = digest
    contents[#contents + 1] = redis.call('HGET', tails, digest)
end
local store = redis.call('HGET', meta, 'store')
return {store, number, names[number] or '', string.format('%.6f', now), table.concat(messages), contents, has_more and 1 or 0}
