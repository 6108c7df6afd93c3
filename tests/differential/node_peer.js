// node_peer.js - Node's HTTP parser on many connections, one JSON line each.
//
// The same batches on stdin as batch_tool.c. A line has the requests (method, target, minor
// version, headers, body) and the parser's error, if any. Strings are Latin-1.
'use strict';
process.noDeprecation = true;
const fs = require('fs');
const { HTTPParser } = require('_http_common');
const { allMethods } = process.binding('http_parser');

const HEAD_BYTES_MAX = 1 << 20;
const LENIENT_NOTHING = 0;
const parser = new HTTPParser();

function pairs(flat) {
  const list = [];
  for (let i = 0; i + 1 < flat.length; i += 2) list.push([flat[i], flat[i + 1]]);
  return list;
}

function parse(input) {
  const requests = [];
  let request = null, early = [], earlyTarget = '';
  parser.initialize(HTTPParser.REQUEST, {}, HEAD_BYTES_MAX, LENIENT_NOTHING);
  // Heads with many fields come in parts, and so do trailers.
  parser[HTTPParser.kOnHeaders] = (headers, target) => {
    if (request === null) { early.push(...headers); earlyTarget += target; }
  };
  parser[HTTPParser.kOnHeadersComplete] = (major, minor, headers, method, target) => {
    const all = early.concat(headers === undefined ? [] : headers);
    request = [allMethods[method], target === undefined ? earlyTarget : target, minor, pairs(all)];
    request.body = [];
    early = []; earlyTarget = '';
    return 0;
  };
  parser[HTTPParser.kOnBody] = (piece) => { request.body.push(piece); };
  parser[HTTPParser.kOnMessageComplete] = () => {
    request.push(Buffer.concat(request.body).toString('latin1'));
    requests.push(request);
    request = null;
  };
  let result = parser.execute(input);
  // Behind a request that asks for an upgrade the parser stops, for the server to decide. We go on
  // with HTTP/1, and so must it.
  while (!(result instanceof Error) && result < input.length && request === null) {
    input = input.subarray(result);
    parser.initialize(HTTPParser.REQUEST, {}, HEAD_BYTES_MAX, LENIENT_NOTHING);
    result = parser.execute(input);
  }
  let error = '';
  if (result instanceof Error) error = `${result.code}: ${result.reason}`;
  // Node does not say which error stopped a body behind "Upgrade".
  else if (result < input.length) error = 'HIDDEN: an error in a message that asks for an upgrade';
  return JSON.stringify({ requests, error, open: request !== null });
}

function readExactly(count) {
  const to = Buffer.allocUnsafe(count);
  let got = 0;
  while (got < count) {
    let more = 0;
    try {
      more = fs.readSync(0, to, got, count - got, null);
    } catch (error) {
      if (error.code === 'EAGAIN') continue;
      if (error.code !== 'EOF') throw error;
    }
    if (more === 0) return null;
    got += more;
  }
  return to;
}

for (;;) {
  const count = readExactly(4);
  if (count === null) break;
  const inputs = [];
  for (let i = count.readUInt32LE(0); i > 0; i--) {
    inputs.push(readExactly(readExactly(4).readUInt32LE(0)));
  }
  const text = Buffer.from(inputs.map(parse).join('\n') + '\n');
  for (let at = 0; at < text.length;) at += fs.writeSync(1, text, at);
}
