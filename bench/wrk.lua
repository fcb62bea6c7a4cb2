-- Reads the requests from the file that WRK_PLAN names, and writes the results as JSON to the file
-- that WRK_RESULT names. The plan has header lines, an empty line, then one request per line:
-- `method<TAB>path<TAB>body`. The requests are sent in this order, again and again. WRK_SERVERS has
-- `host:port` of each server. Each thread sends to one of them, and takes its share of the requests.

local requests = {}
local servers = {}
for host, port in os.getenv("WRK_SERVERS"):gmatch("(%S+):(%d+)") do
   servers[#servers + 1] = {host, port}
end

local threads = 0

function setup(thread)
   threads = threads + 1
   local server = servers[threads]
   thread.addr = wrk.lookup(server[1], server[2])[1]
   thread:set("place", threads)
end

function init()
   local headers, inside = {}, false
   for name, value in pairs(wrk.headers) do headers[name] = value end
   for line in io.lines(os.getenv("WRK_PLAN")) do
      if line == "" and not inside then
         inside = true
      elseif not inside then
         local name, value = line:match("^([^:]+): (.*)$")
         headers[name] = value
      else
         local method, path, body = line:match("^(%u+)\t([^\t]+)\t(.*)$")
         requests[#requests + 1] = wrk.format(method, path, headers, body ~= "" and body or nil)
      end
   end
end

function request()
   local found = requests[place]
   place = (place + #servers - 1) % #requests + 1
   return found
end

function done(summary, latency)
   local errors = summary.errors
   local result = io.open(os.getenv("WRK_RESULT"), "w")
   result:write(string.format(
      '{"requests": %d, "bytes": %d, "seconds": %.6f, ' ..
      '"mean_ms": %.4f, "p50_ms": %.4f, "p90_ms": %.4f, "p95_ms": %.4f, "p99_ms": %.4f, "max_ms": %.4f, ' ..
      '"connect_errors": %d, "read_errors": %d, "write_errors": %d, ' ..
      '"timeouts": %d, "refused": %d}',
      summary.requests, summary.bytes, summary.duration / 1e6,
      latency.mean / 1e3, latency:percentile(50) / 1e3, latency:percentile(90) / 1e3, latency:percentile(95) / 1e3,
      latency:percentile(99) / 1e3, latency.max / 1e3,
      errors.connect, errors.read, errors.write, errors.timeout, errors.status))
   result:close()
end
