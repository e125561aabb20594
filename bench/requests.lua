-- What wrk does here: send whole requests from a file, one after the other, and begin again where
-- they are too few; then say as JSON how it went.
-- wrk ... -s requests.lua URL -- FILE BYTES_OF_EACH

local file, size

function init(arguments)
  file = assert(io.open(arguments[1], "rb"))
  size = tonumber(arguments[2])
end

function request()
  local next_one = file:read(size)
  if not next_one then
    file:seek("set")
    next_one = file:read(size)
  end
  return next_one
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "bytes": %d, ' ..
    '"errors": {"connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d}}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    summary.bytes, errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
