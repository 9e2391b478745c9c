-- Return the state of the store; the first argument is its number if it is new, the second the account.
local store = store_number(ARGV[1])
local asked = {}
for place = 3, #ARGV do
    asked[ARGV[place]] = true
end
local first, first_asked, first_id = nil, nil, nil
local known = redis.call('HGETALL', destinations)
for place = 1, #known, 2 do
    local number = tonumber(known[place + 1])
    local id, score = first_of(number)
    if id then
        local version = tonumber(score) - number * VERSIONS
        if not first or version < first then
            first, first_id = version, id
        end
        if asked[known[place]] and (not first_asked or version < first_asked) then
            first_asked = version
        end
    end
end
local waits = ''
if first then
    local since = struct.unpack('>d', redis.call('HGET', waiting, first_id), 9)
    waits = string.format('%.6f', now - since)
end
return {
    store,
    redis.call('HGET', accounts, ARGV[2]) or '',
    redis.call('ZCARD', queue),
    waits,
    first_asked and text(first_asked) or '',
    text(last_version())
}
