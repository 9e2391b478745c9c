-- Acquire or renew the lease for some seconds, or release it if there are none; return whether the caller holds it.
--
-- It is no key that expires by itself: a server that evicts such keys would give it to two.
local owner, seconds = ARGV[1], tonumber(ARGV[2])
local holder, ends, length = unpack(redis.call('HMGET', meta, 'owner', 'until', 'seconds'))
if seconds == 0 then
    if holder == owner then
        redis.call('HDEL', meta, 'owner')
    end
    return 0
end
begin_although_memory_is_full()

local function hold(who, lasting)
    redis.call('HSET', meta, 'owner', who, 'until', string.format('%.6f', now + lasting), 'seconds', lasting)
end

if holder and holder ~= owner and now < tonumber(ends) then
    if tonumber(ends) > now + tonumber(length) then -- the server's clock was set back
        hold(holder, tonumber(length))
    end
    return 0
end
hold(owner, seconds)
return 1
