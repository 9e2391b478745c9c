-- Forget some messages that were remembered too long or are beyond the bound, unused tails, and idle accounts.
-- Return where the next call continues.
local own, remember_seconds, max_remembered = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local account_seconds, rows, tail_rows = tonumber(ARGV[4]), ARGV[5], ARGV[6]
local cursors = {ARGV[7], ARGV[8], ARGV[9]}

local function delete(key, fields)
    for start = 1, #fields, 1000 do -- Lua puts all arguments on its stack
        redis.call('HDEL', key, unpack(fields, start, math.min(start + 999, #fields)))
    end
end

local function forget_rows(cursor)
    local page = redis.call('HSCAN', latest, cursor, 'COUNT', rows)
    local old, others = {}, {}
    for place = 1, #page[2], 2 do
        local waits, _, _, accepted_at = parse_row(page[2][place + 1])
        if not waits and accepted_at < now - remember_seconds then
            old[#old + 1] = page[2][place]
        elseif not waits then
            others[#others + 1] = {accepted_at, page[2][place]}
        end
    end
    delete(latest, old)
    local most = math.min(excess_of(max_remembered), math.ceil(#others / 2)) -- of each page the oldest
    if most > 0 then
        table.sort(others, function(one, other)
            return one[1] < other[1]
        end)
        old = {}
        for place = 1, most do
            old[place] = others[place][2]
        end
        delete(latest, old)
    end
    return page[1]
end

local function forget_tails(cursor)
    local first = last_version()
    for _, number in ipairs(redis.call('HVALS', destinations)) do
        local id, score = first_of(tonumber(number))
        first = math.min(first, id and tonumber(score) - tonumber(number) * VERSIONS or first)
    end
    local page = redis.call('HSCAN', tail_uses, cursor, 'COUNT', tail_rows)
    local unused = {}
    for place = 1, #page[2], 2 do
        if tonumber(page[2][place + 1]) < first then
            unused[#unused + 1] = page[2][place]
        end
    end
    delete(tails, unused)
    delete(tail_uses, unused)
    return page[1]
end

local function close_accounts(cursor)
    local page = redis.call('HSCAN', accounts, cursor, 'COUNT', rows)
    local idle = {}
    for place = 1, #page[2], 2 do
        local account, values = page[2][place], {struct.unpack(ACCOUNT, page[2][place + 1])}
        local pending = values[3] - values[4] - values[5] - values[6] - values[7] - values[8]
        if account ~= '*' and account ~= own and pending == 0 and values[2] < now - account_seconds then
            idle[#idle + 1] = account
        end
    end
    delete(accounts, idle)
    return page[1]
end

return {forget_rows(cursors[1]), forget_tails(cursors[2]), close_accounts(cursors[3])}
