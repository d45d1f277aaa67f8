--- chance: the random stream of a spec itself, xorshift64* from a seed: `local random = chance(7)`, then random(n) gives 1 to n.
return function (seed)
  local state = seed * 0x9E3779B97F4A7C15 | 1
  return function (n)
    state = state ~ (state >> 12)
    state = state ~ (state << 25)
    state = state ~ (state >> 27)
    return ((state * 0x2545F4914F6CDD1D) >> 33) % n + 1
  end
end
