-- Store messages; return the places of the repeats that are none, counted from 1, and whether too much is remembered.
local own, boot, host_clock = ARGV[2], ARGV[3], tonumber(ARGV[4])
local max_pending, max_dropped = tonumber(ARGV[5]), tonumber(ARGV[6])
local max_remembered = tonumber(ARGV[7])
local messages, repeats = ARGV[8], ARGV[9] -- one after another
local destination_count, at = tonumber(ARGV[10]), 11 -- at: of the next argument

redis.call('HSET', meta, 'store', store_number(ARGV[1])) -- nothing is stored if memory is full
local version = last_version()

local numbers, prefixes = {}, {} -- of the destinations of this call
for place = 1, destination_count do
    local number = tonumber(redis.call('HGET', destinations, ARGV[at]))
    if not number then
        number = redis.call('HLEN', destinations) + 1
        if number > MAX_DESTINATIONS then
            return redis.error_reply('ERR the namespace has messages of 1023 projects already; use another one')
        end
        redis.call('HSET', destinations, ARGV[at], number)
    end
    numbers[place], prefixes[place] = number, field_of(number, '')
    at = at + 1
end
local contents = {} -- of tails, by digest
for place = at, #ARGV, 2 do
    contents[ARGV[place]] = ARGV[place + 1]
end

-- The rows of all keys are read at once, changed here, and written at once.
local rows, changed = {}, {}

local function read_rows(fields)
    for place, row in ipairs(#fields > 0 and redis.call('HMGET', latest, unpack(fields)) or {}) do
        rows[fields[place]] = row
    end
end

local function write_rows()
    local values, size = {}, 0
    for field in pairs(changed) do
        values[size + 1], values[size + 2] = field, rows[field]
        size = size + 2
    end
    if size > 0 then
        redis.call('HSET', latest, unpack(values))
    end
    changed = {}
end

-- Return whether a row was evaluated later. One host has one clock, until it boots.
local function is_late(evaluated_at, moment, row_boot, row_evaluated_at, row_moment)
    if row_boot == boot then
        return evaluated_at < row_evaluated_at and row_evaluated_at <= host_clock
    end
    return moment < row_moment and row_moment <= now
end

local function is_current(waits, accepted_at, seconds)
    return waits or (now >= accepted_at and now - accepted_at < seconds)
end

-- Note the time of an evaluation with the same result.
local function touch(field, row, evaluated_at, moment, known, evaluation)
    local flags = string.byte(row)
    flags = flags - (flags % 4 >= KNOWN and KNOWN or 0) + known * KNOWN
    local when = struct.pack('>c6ddc8', boot, evaluated_at, moment, evaluation)
    rows[field], changed[field] = string.char(flags) .. string.sub(row, 2, 9) .. when .. string.sub(row, 40), true
end

local ids, records, scores, ended, uses = {}, {}, {}, {}, {} -- of this call; ended by id, uses by tail

local function add(field, message)
    local where, replaces, known, fingerprint_size, _, body_size, evaluated_at, evaluation, resend, tail =
        struct.unpack(HEAD, message)
    local fingerprint = string.sub(message, HEAD_SIZE + 1, HEAD_SIZE + fingerprint_size)
    local row, moment, late = rows[field], now - (host_clock - evaluated_at), false
    local is_sent, is_replacing = body_size == 0, replaces == 1
    if not is_sent then
        count(own, ACCEPTED, is_replacing)
    end
    if row then
        local waits, _, row_replaces, value, row_boot, row_evaluated_at, row_moment = parse_row(row)
        late = is_late(evaluated_at, moment, row_boot, row_evaluated_at, row_moment)
        local is_equal = string.sub(row, waits and 52 or 44) == fingerprint
        if is_equal and not is_sent and is_current(waits, value, resend) then
            count(own, UNCHANGED, is_replacing)
            return late or touch(field, row, evaluated_at, moment, known, evaluation)
        end
        if late and (is_sent or is_replacing) then
            return is_sent or count(own, SUPERSEDED, is_replacing)
        end
        if waits and is_replacing then
            count(string.sub(row, 44, 51), SUPERSEDED, row_replaces)
            ended[text(value)] = true
        end
    end
    local flags, value, account = known * KNOWN + replaces * REPLACES, now, ''
    if not is_sent then
        version = version + 1
        flags, value, account = flags + WAITS, version, own
        local id, place = text(version), #ids + 1
        ids[place], records[place] = id, struct.pack(RECORD, own, moment, boot) .. message
        scores[place], uses[tail] = numbers[where + 1], id
    end
    if not late then -- else it is an event, and not the last one
        local begin = struct.pack(ROW, flags, value, boot, evaluated_at, moment, evaluation, resend)
        rows[field], changed[field] = begin .. account .. fingerprint, true
    end
end

local function write_queue()
    local values, members, size = {}, {}, 0
    for place, id in ipairs(ids) do
        if ended[id] then
            ended[id] = nil
        else
            values[size + 1], values[size + 2] = id, records[place]
            members[size + 1], members[size + 2] = text(scores[place] * VERSIONS + tonumber(id)), id
            size = size + 2
        end
    end
    if size > 0 then
        redis.call('HSET', waiting, unpack(values))
        redis.call('ZADD', queue, unpack(members))
    end
    local old = {}
    for id in pairs(ended) do
        old[#old + 1] = id
    end
    if #old > 0 then
        redis.call('HDEL', waiting, unpack(old))
        redis.call('ZREM', queue, unpack(old))
    end
    ids, ended = {}, {}
end

-- At the bound, the oldest messages are dropped, and no longer known.
local function drop(number, id)
    local record = redis.call('HGET', waiting, id)
    local field = field_of(number, (parse_record(record)))
    count(string.sub(record, 1, 8), DROPPED, string.byte(record, RECORD_SIZE + 3) == 1)
    ended[id] = true
    local waits, _, _, value = parse_row(rows[field] or redis.call('HGET', latest, field) or NO_ROW)
    if waits and value == tonumber(id) then
        redis.call('HDEL', latest, field)
        rows[field] = nil
    end
end

local fields, texts = {}, {}
at = 1
while at <= #messages do
    local where, _, _, fingerprint_size, key_size, body_size = struct.unpack(SIZES, messages, at)
    local key_at = at + HEAD_SIZE + fingerprint_size
    local body_at = key_at + key_size
    fields[#fields + 1] = prefixes[where + 1] .. string.sub(messages, key_at, body_at - 1)
    texts[#texts + 1] = string.sub(messages, at, body_at + body_size - 1)
    at = body_at + body_size
end
read_rows(fields)
for place, field in ipairs(fields) do
    add(field, texts[place])
end
write_queue()
write_rows()
for tail, last_use in pairs(uses) do
    redis.call('HSETNX', tails, tail, contents[tail])
    redis.call('HSET', tail_uses, tail, last_use)
end

for _, number in ipairs(numbers) do
    local low, high = bounds_of(number)
    local excess = math.min(redis.call('ZCOUNT', queue, low, high) - max_pending, max_dropped)
    if excess > 0 then
        for _, id in ipairs(redis.call('ZRANGEBYSCORE', queue, low, high, 'LIMIT', 0, excess)) do
            drop(number, id)
        end
    end
end
write_queue()

-- A repeat: the place of its destination, when it was evaluated, evaluation, size of the key; key.
local REPEAT, times, evaluations = '>Hdc8I4', {}, {}
fields, at = {}, 1
while at <= #repeats do
    local where, evaluated_at, evaluation, key_size, key_at = struct.unpack(REPEAT, repeats, at)
    at = key_at + key_size
    fields[#fields + 1] = prefixes[where + 1] .. string.sub(repeats, key_at, at - 1)
    times[#fields], evaluations[#fields] = evaluated_at, evaluation
end
read_rows(fields)
local new = {}
for place, field in ipairs(fields) do
    local evaluated_at, evaluation = times[place], evaluations[place]
    local row, is_repeat = rows[field], false
    if row and string.sub(row, 32, 39) == evaluation then
        local waits, known, _, value, row_boot, row_evaluated_at, row_moment = parse_row(row)
        is_repeat = known and is_current(waits, value, (struct.unpack('>f', row, 40)))
        if is_repeat then
            local moment = now - (host_clock - evaluated_at)
            count(own, ACCEPTED, true)
            count(own, UNCHANGED, true)
            if not is_late(evaluated_at, moment, row_boot, row_evaluated_at, row_moment) then
                touch(field, row, evaluated_at, moment, 1, evaluation)
            end
        end
    end
    if not is_repeat then
        new[#new + 1] = place
    end
end
write_rows()
redis.call('HSET', meta, 'version', text(version))
write_counts(own)
return {new, excess_of(max_remembered) > 0 and 1 or 0}
