-- Keep times by text; return all of a destination. The first argument is the destination, then come texts and times.
local prefix = ARGV[1] .. '\0'
for place = 2, #ARGV, 2 do
    redis.call('HSET', absences, prefix .. ARGV[place], ARGV[place + 1])
end
local kept, found = redis.call('HGETALL', absences), {}
for place = 1, #kept, 2 do
    if string.sub(kept[place], 1, #prefix) == prefix then
        found[#found + 1] = string.sub(kept[place], #prefix + 1)
        found[#found + 1] = kept[place + 1]
    end
end
return found
