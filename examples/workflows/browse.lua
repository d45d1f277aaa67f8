--- A visitor browses: the front page, a few items, a pause.
return {
  vu = function (vu)
    vu.http:get("/")
    for _ = 1, 3 do
      local r, err = vu.http:get("/item/" .. vu:random(1000), { name = "GET /item/:id" })
      vu:check("an item is there", r and r.status == 200)
      if not r then vu:log("an item: " .. err) end
    end
    vu:sleep(10 + vu:random(20))
  end,
}
