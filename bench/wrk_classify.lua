-- wrk script: posts pictures to a classifier, in turn.
--
--   wrk -t1 -c64 -d30s --latency -s bench/wrk_classify.lua \
--       http://127.0.0.1:8000/api/classify -- cat.jpg dog.jpg …
--
-- Prints the answers by status at the end. wrk is a closed loop: its latencies
-- leave out what a stalled server would have done to requests that were not
-- sent; for honest percentiles use `saccade bench`.

local requests = {}
local at = 0
local threads = {}

function setup(thread)
    table.insert(threads, thread)
end

function init(args)
    for _, path in ipairs(args) do
        local file, problem = io.open(path, "rb")
        if not file then
            error(problem)
        end
        local body = file:read("*a")
        file:close()
        local headers = { ["Content-Type"] = "application/octet-stream" }
        table.insert(requests, wrk.format("POST", nil, headers, body))
    end
    if #requests == 0 then
        error("name at least one picture after --")
    end
    statuses = ""
    counts = {}
end

function request()
    at = at % #requests + 1
    return requests[at]
end

function response(status)
    if status ~= 200 then
        counts[status] = (counts[status] or 0) + 1
        local parts = {}
        for code, count in pairs(counts) do
            table.insert(parts, code .. "=" .. count)
        end
        statuses = table.concat(parts, " ")
    end
end

-- One line for a program to read, after wrk's own.
function done(summary, latency)
    local errors = summary.errors
    local other = {}
    for _, thread in ipairs(threads) do
        local text = thread:get("statuses")
        if text ~= "" then
            table.insert(other, text)
        end
    end
    io.write(string.format(
        'RESULT {"requests":%d,"seconds":%.6f,"p50_us":%d,"p99_us":%d,"max_us":%d,'
            .. '"connect":%d,"read":%d,"write":%d,"timeout":%d,"other":"%s"}\n',
        summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
        latency.max, errors.connect, errors.read, errors.write, errors.timeout,
        table.concat(other, " ")))
end
