-- luacheck's settings; scripts/lint runs it.
std = "lua54"
max_line_length = 144
max_code_line_length = 144
max_comment_line_length = 144
codes = true
files["spec"] = { std = "lua54+busted" }
-- Job files and workflows run with these.
files["examples"] = { read_globals = { "getenv", "seconds", "minutes" } }
exclude_files = { "build" }
-- luacheck does not know to-be-closed variables: these names are theirs. Methods may leave self alone.
ignore = { "211/guard", "211/free", "211/closing", "212/self", "432/self" }
