local swim = {}
function swim.open(_, config) return setmetatable({ a = config.bind }, { __index = swim }) end
function swim:members() return {} end
function swim:leave(f) f() end
function swim:close() end
return swim
