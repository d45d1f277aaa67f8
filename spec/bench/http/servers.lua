--- The servers of `scripts/bench http_corpus`: nginx, apache2, haproxy and Node.js, each with its configuration and its cases.
---
--- A case: name, path, and of the request method, headers, body, options, cookies; `any`: headers whose values change from one answer to
--- the next, besides Date; `differs`: why curl's verdict is another one.
local servers = {}

local LARGE = 300000

servers.nginx = {
  argv = function (dir) return { "nginx", "-e", dir .. "/nginx.log", "-p", dir, "-c", dir .. "/nginx.conf" } end,
  file = "nginx.conf",
  config = [[
worker_processes 1; daemon off; pid DIR/nginx.pid; error_log DIR/nginx.log;
events { worker_connections 256; }
http {
  access_log off; client_body_temp_path DIR/b; proxy_temp_path DIR/p; fastcgi_temp_path DIR/f; uwsgi_temp_path DIR/u; scgi_temp_path DIR/s;
  keepalive_timeout 60 7; gzip_types text/plain; gzip_min_length 1; client_max_body_size 1k;
  server {
    listen 127.0.0.1:PORT; root DIR/www; default_type text/plain;
    location = /ok { return 200 "ok"; }
    location = /empty { return 204; }
    location = /teapot { return 418 "short and stout"; }
    location = /missing { return 404; }
    location = /moved { return 301 /ok; }
    location = /found { return 302 http://127.0.0.1:PORT/ok; }
    location = /other { return 303 /ok; }
    location = /temporary { return 307 /ok; }
    location = /permanent { return 308 /ok; }
    location = /loop { return 302 /loop; }
    location = /chain { return 302 /moved; }
    location = /cut { return 444; }
    location = /several { add_header X-A 1; add_header X-A 2; add_header Set-Cookie "a=1, b"; add_header Set-Cookie "c=2"; return 200 "ok"; }
    location = /login { add_header Set-Cookie "sid=1; Path=/"; return 302 /cookie; }
    location = /cookie { return 200 "$http_cookie"; }
    location = /host { return 200 "$http_host"; }
    location = /agent { return 200 "$http_user_agent"; }
    location = /secret { auth_basic "here"; auth_basic_user_file DIR/none; }
    location = /bad-gateway { proxy_pass http://127.0.0.1:1; }
    location = /close { keepalive_timeout 0; return 200 "ok"; }
    location /zip/ { gzip on; alias DIR/www/; }
    location /list/ { autoindex on; alias DIR/www/; }
  }
}
]],
  cases = {
    { path = "/ok" }, { path = "/ok", method = "HEAD" }, { path = "/empty" }, { path = "/teapot" }, { path = "/missing" },
    { path = "/missing", method = "HEAD" }, { path = "/moved" }, { path = "/found" }, { path = "/moved", options = { redirects = 5 } },
    { path = "/found", options = { redirects = 5 } }, { path = "/chain", options = { redirects = 5 } }, { path = "/loop",
      options = { redirects = 3 } },
    { path = "/other", method = "POST", body = "x", options = { redirects = 5 } },
    { path = "/temporary", method = "HEAD", options = { redirects = 5 } }, { path = "/permanent", options = { redirects = 1 } },
    { path = "/cut" }, { path = "/several" }, { path = "/login", options = { redirects = 2 }, cookies = true },
    { path = "/host", headers = { Host = "shop.example" } }, { path = "/agent", headers = { ["User-Agent"] = "mine/1" } },
    { path = "/secret", any = "www-authenticate" }, { path = "/bad-gateway" }, { path = "/close" }, { path = "/close", name = "close-again" },
    { path = "/large" }, { path = "/large", method = "HEAD" }, { path = "/large", headers = { Range = "bytes=10-19" } },
    { path = "/large", headers = { Range = "bytes=999999-" } }, { path = "/large", headers = { Range = "bytes=0-0,5-6" }, any = "content-type",
      body_any = true },
    { path = "/large", headers = { ["If-None-Match"] = "*" } }, { path = "/large",
      headers = { ["If-Modified-Since"] = "Fri, 31 Dec 2100 00:00:00 GMT" },
      name = "if-modified-since" },
    { path = "/large", method = "POST", body = "x" }, { path = "/large", method = "OPTIONS" }, { path = "/zip/large",
      options = { compressed = true } },
    { path = "/zip/large", name = "zip-not-asked" }, { path = "/zip/large", method = "HEAD", options = { compressed = true } },
    { path = "/list/" }, { path = "/large", options = { max_body_bytes = LARGE } }, { path = "/large",
      options = { max_body_bytes = LARGE - 1 } },
    { path = "/ok", method = "POST", body = ("x"):rep(2000), name = "413" }, { path = "/ok", headers = { X = ("x"):rep(40000) },
      name = "400-large-head" },
    { path = "/ok?" .. ("x"):rep(7000), name = "long-query" }, { path = "/nothing" }, { path = "//ok" }, { path = "/%6fk" }, { path = "/ok",
      method = "DELETE" },
    { path = "/ok", headers = { Connection = "close" }, name = "asked-to-close" },
  },
}

servers.apache = {
  argv = function (dir) return { "apache2", "-X", "-d", dir, "-f", dir .. "/apache.conf" } end,
  file = "apache.conf",
  config = [[
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule alias_module /usr/lib/apache2/modules/mod_alias.so
LoadModule headers_module /usr/lib/apache2/modules/mod_headers.so
LoadModule mime_module /usr/lib/apache2/modules/mod_mime.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
LoadModule autoindex_module /usr/lib/apache2/modules/mod_autoindex.so
LoadModule asis_module /usr/lib/apache2/modules/mod_asis.so
LoadModule filter_module /usr/lib/apache2/modules/mod_filter.so
LoadModule deflate_module /usr/lib/apache2/modules/mod_deflate.so
TypesConfig /dev/null
ServerName localhost
Listen 127.0.0.1:PORT
PidFile DIR/apache.pid
ErrorLog DIR/apache.log
DefaultRuntimeDir DIR
DocumentRoot DIR/www
KeepAlive On
KeepAliveTimeout 5
LimitRequestBody 1000
AddHandler send-as-is asis
DeflateCompressionLevel 6
<Directory DIR/www>
  Require all granted
  Options +Indexes
</Directory>
Alias /zip DIR/www
<Location /zip>
  SetOutputFilter DEFLATE
</Location>
Redirect 302 /moved /ok
Redirect 301 /gone-to http://127.0.0.1:PORT/ok
Redirect gone /gone
<Location /many>
  Header always add X-A "1"
  Header always add X-A "2"
</Location>
<Location /denied>
  Require all denied
</Location>
]],
  cases = {
    { path = "/ok" }, { path = "/ok", method = "HEAD" }, { path = "/missing" }, { path = "/missing", method = "HEAD" }, { path = "/moved" },
    { path = "/moved", options = { redirects = 3 } }, { path = "/gone-to", options = { redirects = 3 } }, { path = "/gone" },
      { path = "/denied" },
    { path = "/many" }, { path = "/large" }, { path = "/large", headers = { Range = "bytes=-5" } }, { path = "/large",
      headers = { Range = "bytes=400000-" } },
    { path = "/zip/large", options = { compressed = true } }, { path = "/zip/large", name = "zip-not-asked" },
    { path = "/zip/ok", method = "HEAD", options = { compressed = true } }, { path = "/large", headers = { ["If-None-Match"] = "*" } },
    { path = "/large", method = "OPTIONS" }, { path = "/large", method = "PATCH", body = "x" }, { path = "/", }, { path = "/sub" },
    { path = "/sub", options = { redirects = 1 } }, { path = "/204.asis" }, { path = "/304.asis" }, { path = "/418.asis" },
      { path = "/redirect.asis" },
    { path = "/redirect.asis", options = { redirects = 2 } }, { path = "/cookies.asis" }, { path = "/ok", headers = { Connection = "close" },
      name = "asked-to-close" },
    { path = "/ok", method = "POST", body = ("x"):rep(2000), name = "413" }, { path = "/ok", headers = { X = ("x"):rep(9000) },
      name = "400-large-head" },
    { path = "/ok", method = "NONSENSE" }, { path = "/%zz" },
  },
}

servers.haproxy = {
  argv = function (dir) return { "haproxy", "-db", "-f", dir .. "/haproxy.conf" } end,
  file = "haproxy.conf",
  config = [[
global
  maxconn 200
defaults
  mode http
  timeout connect 500ms
  timeout client 5s
  timeout server 500ms
  timeout http-keep-alive 3s
frontend f
  bind 127.0.0.1:PORT
  http-request return status 200 content-type text/plain string "ok" if { path /ok }
  http-request return status 200 content-type text/plain string "ok" hdr X-A 1 hdr X-A 2 if { path /several }
  http-request return status 404 content-type text/plain string "no" if { path /missing }
  http-request return status 503 content-type text/plain string "later" hdr Retry-After 5 if { path /later }
  http-request redirect location /ok code 302 if { path /moved }
  http-request redirect location /ok code 303 if { path /other }
  http-request redirect location /ok code 307 if { path /temporary }
  http-request redirect location /moved code 301 if { path /chain }
  http-request deny deny_status 403 if { path /denied }
  http-request deny deny_status 429 if { path /limited }
  http-request deny deny_status 400 if { path /bad }
  http-request tarpit deny_status 500 if { path /slow }
  http-request silent-drop if { path /dropped }
  http-request reject if { path /rejected }
  timeout tarpit 100ms
  use_backend nobody if { path /nobody }
  use_backend node if { path_beg /node }
  default_backend nobody
backend nobody
  server s 127.0.0.1:1
backend node
  http-request replace-path /node(.*) \1
  compression algo gzip
  compression type text/plain
  server s 127.0.0.1:NODE
]],
  cases = {
    { path = "/ok" }, { path = "/ok", method = "HEAD" }, { path = "/several" }, { path = "/missing" }, { path = "/later" }, { path = "/moved" },
    { path = "/moved", options = { redirects = 2 } }, { path = "/chain", options = { redirects = 2 } }, { path = "/chain",
      options = { redirects = 1 } },
    { path = "/other", method = "POST", body = "x", options = { redirects = 2 } }, { path = "/temporary", method = "POST", body = "x",
      options = { redirects = 2 } },
    { path = "/denied" }, { path = "/limited" }, { path = "/bad" }, { path = "/slow" }, { path = "/rejected" }, { path = "/dropped" },
      { path = "/nobody" },
    { path = "/ok", headers = { X = ("x"):rep(20000) }, name = "400-large-head" }, { path = "/node/ok" }, { path = "/node/chunked" },
    { path = "/node/empty" }, { path = "/node/304" }, { path = "/node/early" }, { path = "/node/cut-length" }, { path = "/node/cut-chunked" },
    { path = "/node/destroy" }, { path = "/node/hang" }, { path = "/node/text", options = { compressed = true } }, { path = "/node/trailers" },
    { path = "/node/ok", method = "HEAD", name = "node-head" }, { path = "/node/head-length", method = "HEAD" },
  },
}

servers.node = {
  argv = function (dir) return { "node", dir .. "/node.js" } end,
  file = "node.js",
  config = [[
const http = require('http'), zlib = require('zlib');
const text = 'hello '.repeat(20000);
const send = (res, coding, bytes) => { res.setHeader('Content-Encoding', coding); res.end(bytes); };
const routes = {
  '/ok': (q, r) => r.end('ok'),
  '/empty': (q, r) => { r.statusCode = 204; r.end(); },
  '/304': (q, r) => { r.statusCode = 304; r.setHeader('ETag', '"x"'); r.setHeader('Content-Length', '500'); r.end(); },
  '/chunked': (q, r) => { r.write('abc'); setTimeout(() => { r.write('def'); r.end(); }, 10); },
  '/text': (q, r) => { r.setHeader('Content-Type', 'text/plain'); r.setHeader('Content-Length', text.length); r.end(text); },
  '/gzip': (q, r) => send(r, 'gzip', zlib.gzipSync(text)),
  '/deflate': (q, r) => send(r, 'deflate', zlib.deflateSync(text)),
  '/deflate-raw': (q, r) => send(r, 'deflate', zlib.deflateRawSync(text)),
  '/x-gzip': (q, r) => send(r, 'x-gzip', zlib.gzipSync(text)),
  '/gzip-gzip': (q, r) => send(r, 'gzip, gzip', zlib.gzipSync(zlib.gzipSync(text))),
  '/gzip-deflate': (q, r) => send(r, 'gzip, deflate', zlib.deflateSync(zlib.gzipSync(text))),
  '/gzip-two-members': (q, r) => send(r, 'gzip', Buffer.concat([zlib.gzipSync('one'), zlib.gzipSync('two')])),
  '/gzip-chunked': (q, r) => { r.setHeader('Content-Encoding', 'gzip'); const z = zlib.createGzip(); z.pipe(r); z.end(text); },
  '/gzip-identity': (q, r) => send(r, 'identity', text),
  '/gzip-lie': (q, r) => send(r, 'gzip', text),
  '/gzip-cut': (q, r) => send(r, 'gzip', zlib.gzipSync(text).subarray(0, -12)),
  '/gzip-more': (q, r) => send(r, 'gzip', Buffer.concat([zlib.gzipSync(text), Buffer.from('more')])),
  '/gzip-empty': (q, r) => send(r, 'gzip', ''),
  '/gzip-crc': (q, r) => { const b = zlib.gzipSync(text); b[b.length - 6] ^= 1; send(r, 'gzip', b); },
  '/unknown-coding': (q, r) => send(r, 'rot13', text),
  '/early': (q, r) => { r.writeEarlyHints({ link: '</a.css>; rel=preload' }); r.end('ok'); },
  '/processing': (q, r) => { r.writeProcessing(); r.writeProcessing(); r.end('ok'); },
  '/continue': (q, r) => { r.writeContinue(); r.end('ok'); },
  '/trailers': (q, r) => { r.setHeader('Trailer', 'X-Sum'); r.write('abc'); r.addTrailers({ 'X-Sum': '1' }); r.end(); },
  '/cut-length': (q, r) => { r.setHeader('Content-Length', 100); r.write('abc'); setTimeout(() => r.socket.end(), 10); },
  '/cut-chunked': (q, r) => { r.write('abc'); setTimeout(() => r.socket.end(), 10); },
  '/destroy': (q, r) => r.socket.destroy(),
  '/reset': (q, r) => r.socket.resetAndDestroy(),
  '/reset-in-body': (q, r) => { r.setHeader('Content-Length', 100); r.write('abc'); setTimeout(() => r.socket.resetAndDestroy(), 10); },
  '/hang': () => {},
  '/slow': (q, r) => setTimeout(() => r.end('ok'), 200),
  '/cookies': (q, r) => { r.setHeader('Set-Cookie', ['a=1; Path=/', 'b=2; HttpOnly; Max-Age=60']); r.end('ok'); },
  '/set': (q, r) => { r.setHeader('Set-Cookie', ['a=1; Path=/', 'b=2; Path=/other', 'c=3; Path=/; Max-Age=0', 'd=4; Domain=example.com',
    'e=5; Secure']);
    r.writeHead(302, { Location: '/cookie' }); r.end(); },
  '/cookie': (q, r) => r.end(q.headers.cookie || '-'),
  '/several': (q, r) => { r.setHeader('X-A', ['1', '2']); r.setHeader('Vary', ['a', 'b']); r.end('ok'); },
  '/latin': (q, r) => { r.setHeader('X-A', 'caf\u00e9'); r.end('ok'); },
  '/echo': (q, r) => { let b = ''; q.on('data', (d) => b += d); q.on('end', () => r.end([q.method, q.url, b, q.headers['content-type'],
    q.headers['content-length'],
    q.headers.authorization, q.headers.host.replace(/:.*/, '')].join('|'))); },
  '/301': (q, r) => { r.writeHead(301, { Location: '/echo' }); r.end('x'); },
  '/302': (q, r) => { r.writeHead(302, { Location: '../echo?a=b#c' }); r.end('x'); },
  '/303': (q, r) => { r.writeHead(303, { Location: '/echo' }); r.end('x'); },
  '/307': (q, r) => { r.writeHead(307, { Location: '/echo' }); r.end('x'); },
  '/308': (q, r) => { r.writeHead(308, { Location: '/echo' }); r.end('x'); },
  '/300': (q, r) => { r.writeHead(300, { Location: '/echo' }); r.end('x'); },
  '/302-nowhere': (q, r) => { r.writeHead(302); r.end('x'); },
  '/302-other-host': (q, r) => { r.writeHead(302, { Location: 'http://localhost:' + port + '/echo' }); r.end('x'); },
  '/302-large': (q, r) => { r.writeHead(302, { Location: '/echo' }); r.end(text); },
  '/302-relative': (q, r) => { r.writeHead(302, { Location: '?x=y' }); r.end('x'); },
  '/302-scheme': (q, r) => { r.writeHead(302, { Location: 'gopher://127.0.0.1/' }); r.end('x'); },
  '/head-length': (q, r) => { r.setHeader('Content-Length', 500); r.end(); },
  '/connection-close': (q, r) => { r.setHeader('Connection', 'close'); r.end('ok'); },
};
const port = PORT;
const server = http.createServer((q, r) => {
  const path = q.url.replace(/\?.*/, '');
  if (q.url === '/302-relative?x=y') return r.end('arrived');
  (routes[path] || ((a, b) => { b.statusCode = 404; b.end('no'); }))(q, r);
});
server.on('upgrade', (q, s) => { s.end('HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n'); });
server.listen(port, '127.0.0.1');
]],
  cases = (function ()
    local list = {}
    for name in ([[ok empty 304 chunked text early processing continue trailers cut-length cut-chunked destroy reset reset-in-body hang slow
      cookies several latin echo 301 302 303 307 308 300 connection-close nothing]]):gmatch "%S+" do
      list[#list + 1] = { path = "/" .. name }
    end
    for name in ([[gzip deflate deflate-raw x-gzip gzip-gzip gzip-deflate gzip-chunked gzip-identity gzip-lie gzip-more gzip-empty gzip-crc
      unknown-coding text]]):gmatch "%S+" do list[#list + 1] = { path = "/" .. name, options = { compressed = true }, name = "compressed "
        .. name } end
    for _, status in ipairs { 301, 302, 303, 307, 308 } do
      for _, method in ipairs { "GET", "HEAD", "POST", "PUT" } do
        local body = (method == "POST" or method == "PUT") and "body" or nil
        list[#list + 1] = { path = "/" .. status, method = method, body = body, options = { redirects = 3 },
          name = ("%s follows %d"):format(method, status) }
      end
    end
    for _, each in ipairs {
      { path = "/300", options = { redirects = 3 }, name = "300-followed",
        differs = "RFC 9110, 15.4.1: 300 offers a choice; it is not followed here; curl follows its Location" },
      { path = "/gzip-two-members", options = { compressed = true }, name = "compressed gzip-two-members",
        differs = "RFC 1952, 2.2: a gzip file is a series of members; curl refuses the second" },
      { path = "/gzip-cut", options = { compressed = true }, name = "compressed gzip-cut",
        differs = "RFC 1952, 2.2: each member ends with its CRC and size; curl 7.88 does not miss them" },
      { path = "/302-nowhere", options = { redirects = 3 } }, { path = "/302-large", options = { redirects = 3 } },
      { path = "/302-relative", options = { redirects = 3 } }, { path = "/302-scheme", options = { redirects = 3 } },
      { path = "/302-other-host", options = { redirects = 3 }, headers = { Authorization = "me" } },
      { path = "/302", options = { redirects = 3 }, headers = { Authorization = "me" }, name = "302-same-host-secret" },
      { path = "/set", options = { redirects = 3 }, cookies = true,
        differs = "RFC 6265, 5.4: of cookies with equal paths the older goes first; curl sends the younger first" }, { path = "/cookies",
          cookies = true, name = "cookies-kept" },
      { path = "/gzip", name = "gzip-not-asked" }, { path = "/gzip", method = "HEAD", options = { compressed = true }, name = "gzip-head" },
      { path = "/head-length", method = "HEAD" }, { path = "/echo", method = "POST", body = "hello", name = "post" },
      { path = "/echo", method = "PUT", body = ("x"):rep(50000), name = "put-large" }, { path = "/echo", method = "DELETE", name = "delete" },
      { path = "/echo", method = "PATCH", body = "x", name = "patch" }, { path = "/echo", method = "OPTIONS", name = "options" },
      { path = "/echo", method = "POST", body = "x", headers = { ["Content-Type"] = "a/b" }, name = "post-type" },
      { path = "/echo?a=b&c=%20", name = "query" },
      { path = "/text", options = { max_body_bytes = 120000 }, name = "at-limit" }, { path = "/text", options = { max_body_bytes = 119999 },
        name = "past-limit" },
      { path = "/ok", headers = { Upgrade = "x", Connection = "Upgrade" }, name = "upgrade", any = "body",
        differs = "RFC 9110, 7.8: a 101 that was asked for is the response; curl waits for another one" },
    } do list[#list + 1] = each end
    return list
  end)(),
}

--- Files that the servers serve.
---@return table<string, string> by path
function servers.files()
  return {
    ["www/ok"] = "ok", ["www/many"] = "ok", ["www/large"] = ("0123456789"):rep(LARGE // 10), ["www/denied"] = "no", ["www/sub/file"] = "x",
    ["www/204.asis"] = "Status: 204 No Content\n\n", ["www/304.asis"] = 'Status: 304 Not Modified\nETag: "x"\n\n',
    ["www/418.asis"] = "Status: 418 Teapot\nContent-Type: text/plain\n\nshort\n",
    ["www/redirect.asis"] = "Status: 302 Found\nLocation: /ok\nContent-Type: text/plain\n\nthere\n",
    ["www/cookies.asis"] = "Status: 200 OK\nSet-Cookie: a=1\nSet-Cookie: b=2\nContent-Type: text/plain\n\nok\n",
  }
end

return servers
