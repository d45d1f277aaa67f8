--- Request each page once or twice, so that caches are warm.
local pages = { "/", "/catalogue", "/cart" }

return function (vu)
  for _, page in ipairs(pages) do
    local r = vu.http:get(page)
    vu:check("warm: status 200", r and r.status == 200)
  end
end
