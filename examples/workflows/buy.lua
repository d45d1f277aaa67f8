--- Put an item into the cart and pay.
return {
  setup = function (ctx)
    local r = ctx.http:get("/login")
    return { session = r and r.headers["x-session"] or "guest" }
  end,

  vu = function (vu)
    local headers = { Cookie = "session=" .. vu.data.session }
    vu.http:get("/cart", { headers = headers })
    local r = vu.http:post("/buy", { headers = headers, body = "item=" .. vu:random(1000), timeout_ms = 5000 })
    if vu:check("bought", r and r.status == 200) then vu:count("purchases") end
  end,
}
