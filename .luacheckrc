-- luacheck's settings; scripts/lint runs it.
std = "lua54"
max_line_length = 144
max_code_line_length = 144
max_comment_line_length = 144
codes = true
files["spec"] = { std = "lua54+busted" }
exclude_files = { "build" }
