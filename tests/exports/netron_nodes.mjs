// Prints the nodes that Netron would draw, a line of JSON for each: node netron_nodes.mjs NETRON FILE

import * as fs from 'fs';
import * as path from 'path';
import * as url from 'url';

const [folder, file] = process.argv.slice(2);
const load = (name) => import(url.pathToFileURL(path.join(folder, name)).href);
const read = async (name, encoding) => fs.readFileSync(path.join(folder, name), encoding || null);

globalThis.window = { addEventListener() {}, document: { addEventListener() {} } };  // of a browser

const base = await load('base.js');
const view = await load('view.js');
const host = {
    document: null,
    environment: () => null,
    event() {},
    exception() {},
    request: read,
    asset: read,
    require: (name) => load(`${name}.js`)
};
const name = path.basename(file);
const context = {
    identifier: name,
    name,
    entries: new Map(),
    stream: new base.BinaryStream(fs.readFileSync(file)),
    error() {},
    request: read,
    fetch: read,
    asset: (asset, encoding) => read(asset, encoding || 'utf-8'),
    require: host.require
};
const model = await new view.ModelFactoryService(host).open(context);
for (const graph of model.modules || model.graphs) {
    for (const node of graph.nodes) {
        console.log(JSON.stringify([node.name, node.type.name]));
    }
}
