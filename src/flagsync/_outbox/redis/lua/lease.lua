-- Acquire or renew the lease for some seconds, or release it if there are none; return whether the caller holds it.
--
-- It is no key that expires by itself: a server that evicts such keys would give it to two.
local owner, seconds = ARGV[1], tonumber(ARGV[2])
local holder, until_text = unpack(redis.call('HMGET', meta, 'owner', 'until'))
local ends = tonumber(until_text or 0)
local is_own = holder == owner
if seconds == 0 then
    if is_own then
        redis.call('HDEL', meta, 'owner', 'until')
    end
    return 0
end
begin_although_memory_is_full()
if holder and not is_own and now < ends then
    if ends > now + seconds then -- the server's clock was set back
        redis.call('HSET', meta, 'until', string.format('%.6f', now + seconds))
    end
    return 0
end
redis.call('HSET', meta, 'owner', owner, 'until', string.format('%.6f', now + seconds))
return 1
