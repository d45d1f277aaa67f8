--- The output of a spec run: a dot a spec, each failure in full, and the counts as "PASSED FAILED" in the file that SHOAL_TOTALS names.
--- A pending spec must have a reason (`pending("needs a second machine")`); without one it is a failure.
return function (options)
  local busted = require "busted"
  local handler = require "busted.outputHandlers.base"()
  local passed, failed, pending, column, said = 0, {}, {}, 0, nil

  local function dot(char)
    io.write(char)
    column = column + 1
    if column % 100 == 0 then io.write("\n") end
    io.flush()
  end

  local function fail(title, message)
    failed[#failed + 1] = { title = title, message = message }
    dot("F")
  end

  local function text(message)
    if type(message) == "string" then return message end
    if type(message) == "table" and message.message then return tostring(message.message) end
    return require("pl.pretty").write(message)
  end

  handler.testEnd = function (element, _, status, trace)
    local title = handler.getFullName(element)
    if status == "success" then
      passed = passed + 1
      dot(".")
    elseif status == "pending" then
      local reason = said
      said = nil
      if reason and reason ~= "" then
        pending[#pending + 1] = { title = title, message = reason }
        dot("p")
      else
        fail(title, "pending without a reason")
      end
    else
      local list = status == "failure" and handler.failures or handler.errors
      local last = list[#list]
      fail(title, (last and text(last.message) or "?") .. (last and last.trace and last.trace.traceback and "\n" .. last.trace.traceback or ""))
    end
    return nil, trace == nil
  end

  handler.error = function (element, _, message)
    if element.descriptor ~= "it" then fail(handler.getFullName(element) .. " (" .. element.descriptor .. ")", text(message)) end
    return nil, true
  end

  handler.exit = function ()
    io.write(column % 100 == 0 and "" or "\n")
    for _, p in ipairs(pending) do io.write("pending: ", p.title, ": ", p.message, "\n") end
    for _, f in ipairs(failed) do io.write("\nFAILED: ", f.title, "\n", f.message, "\n") end
    io.write(("%d specs passed, %d failed, %d pending\n"):format(passed, #failed, #pending))
    io.flush() -- A sanitizer that finds a leak ends the process without a flush.
    local path = os.getenv("SHOAL_TOTALS")
    if path then
      local file = assert(io.open(path, "w"))
      file:write(passed, " ", #failed, "\n")
      assert(file:close())
    end
    return nil, true
  end

  busted.subscribe({ "test", "end" }, handler.testEnd, { predicate = handler.cancelOnPending })
  busted.subscribe({ "pending" }, function (_, _, message)
    said = message and text(message) or nil
    return nil, true
  end)
  busted.subscribe({ "error" }, handler.error)
  busted.subscribe({ "exit" }, handler.exit)
  handler:subscribe(options)
  return handler
end
