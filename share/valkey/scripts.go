package valkey

// What has to happen at one moment is a script. All keys of a call are in one slot
// of a cluster. The time is that of the server.
const (
	// askScript: KEYS entry; ARGV the most bytes of the file and of another field.
	askScript = readEntry + `return {redis.call('TIME'), read()}`

	// claimScript: KEYS entry, lease; ARGV as for askScript, token, milliseconds. It
	// may be repeated.
	claimScript = readEntry + `local entry = read()
local granted = redis.call('GET', KEYS[2]) == ARGV[3] or redis.call('SET', KEYS[2], ARGV[3], 'NX', 'PX', ARGV[4])
return {redis.call('TIME'), entry, granted and 1 or 0}`

	readEntry = `local function read()
  if redis.call('HSTRLEN', KEYS[1], 'file') > tonumber(ARGV[1]) then return 'large' end
  for _, f in ipairs({'format', 'id', 'time', 'fence', 'host', 'mac'}) do
    if redis.call('HSTRLEN', KEYS[1], f) > tonumber(ARGV[2]) then return 'large' end
  end
  return redis.call('HMGET', KEYS[1], 'format', 'file', 'id', 'time', 'fence', 'host', 'mac')
end
`

	// writeScript: KEYS entry, lease; ARGV format, fence, milliseconds to live,
	// token, then fields and values. It writes nothing over a higher format or a
	// higher fence, and ends the lease if it is still that of the token. A fence of
	// the future was written by hand, or by a server whose clock was wrong.
	writeScript = `local t = redis.call('TIME')
local most = tonumber(t[1]) * 1000000 + 60000000
local old = redis.call('HMGET', KEYS[1], 'format', 'fence')
local fence = old[2] and tonumber(old[2]) or 0
local result = 'stored'
if old[1] and (tonumber(old[1]) or 0) > tonumber(ARGV[1]) then result = 'newer'
elseif fence > tonumber(ARGV[2]) and fence <= most then result = 'fenced'
else
  redis.call('HSET', KEYS[1], unpack(ARGV, 5))
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
if redis.call('GET', KEYS[2]) == ARGV[4] then redis.call('DEL', KEYS[2]) end
return result`

	// releaseScript: KEYS lease; ARGV token.
	releaseScript = `if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0`
)
