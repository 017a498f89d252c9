// Runs npm's telegram-test-api, an emulator of the Bot API that others wrote, on a free port of 127.0.0.1.
// Prints the port once it listens, and ends when its input ends: with the test that started it, however that ends.
//
//   node bot_api.js FOLDER_OF_THE_PACKAGE
'use strict';

const net = require('node:net');
const path = require('node:path');

const TelegramServer = require(path.resolve(process.argv[2]));

const probe = net.createServer();
probe.listen(0, '127.0.0.1', () => {
    // The emulator takes no socket, and 0 for 9000: the port is free for the moment that it needs.
    const { port } = probe.address();
    probe.close(async () => {
        const server = new TelegramServer({ host: '127.0.0.1', port });
        await server.start();
        process.stdout.write(`${port}\n`);
        process.stdin.resume();
        process.stdin.on('end', () => process.exit(0));
    });
});
