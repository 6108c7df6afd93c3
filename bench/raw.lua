-- raw.lua - wrk sends the bytes of a file, as they are, again and again.
--
--     wrk ... -s raw.lua URL -- FILE
--
-- The file may hold several requests behind each other: wrk counts them and pipelines that deep.
local bytes

function init(arguments)
    local file = assert(io.open(arguments[1], "rb"))
    bytes = file:read("*a")
    file:close()
end

function request()
    return bytes
end
