#!/usr/bin/env node
// Greets each client and reads what it sends. The rest is yours. (Node serves all clients at the
// same time: its event loop calls these functions when something happens.)
const net = require('net');

const server = net.createServer({ allowHalfOpen: true }, (client) => {
  client.write('*');
  client.on('data', (bytes) => {
    // stage 2: answer them
  });
  client.on('end', () => client.end());
  client.on('error', () => client.destroy()); // the client is lost, and nothing else
});

server.on('error', (error) => {
  console.error(`server: ${error.message}`);
  process.exit(1);
});
process.on('SIGTERM', () => process.exit(0));
server.listen(Number(process.argv[process.argv.length - 1]), '127.0.0.1');
