'use strict';
/*
 * Cronium helper for Node 18 and later.
 *
 *   const cronium = require('./cronium.js');   // also sets the global `cronium`
 *   cronium.input()                   the event's input
 *   cronium.event()                   what is known about the event
 *   cronium.output(data)              write output.json
 *   cronium.getVariable(key)          a variable's value, or null; also null for "", 0 and false
 *   cronium.setVariable(key, value)   store a value; true, or false when that failed
 *   cronium.setCondition(condition)   write condition.json; the condition as a boolean
 *   cronium.getCondition()            what setCondition set in this process, or null
 *
 * Paths are relative: after process.chdir the files are looked for, and created, in the new directory.
 */
const { readFileSync, writeFileSync } = require('node:fs');

/** The JSON in the file; {} when the file is missing or is not JSON. */
function read(path) {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch {
    return {};
  }
}

/** Writes in place. What has no JSON form throws before the file is opened. */
function write(path, data) {
  const text = JSON.stringify(data, null, 2);
  if (text === undefined) throw new TypeError(`a value of type ${typeof data} has no JSON form`);
  writeFileSync(path, text);
}

/** What variables.json holds now; {} unless that is an object. */
function variables() {
  const document = read('variables.json');
  return typeof document === 'object' && document !== null && !Array.isArray(document) ? document : {};
}

function complain(doing, error) {
  console.error(`Error ${doing}: ${error?.message ?? error}`);
}

const inputAtStart = read('input.json');
const eventAtStart = read('event.json');
let conditionSet = null;

const cronium = {
  input: () => inputAtStart,

  event: () => eventAtStart,

  output(data) {
    try {
      write('output.json', data);
    } catch (error) {
      complain('writing output', error);
    }
  },

  getVariable(key) {
    const document = variables();
    return (Object.hasOwn(document, key) && document[key]) || null; // "", 0 and false too: scripts rely on it
  },

  setVariable(key, value) {
    try {
      write('variables.json', { ...variables(), [key]: value, __updated__: new Date().toISOString() });
      return true;
    } catch (error) {
      complain('setting variable', error);
      return false;
    }
  },

  setCondition(condition) {
    conditionSet = Boolean(condition);
    try {
      write('condition.json', { condition: conditionSet });
    } catch (error) {
      complain('setting condition', error);
    }
    return conditionSet;
  },

  getCondition: () => conditionSet,
};

module.exports = cronium;
global.cronium = cronium;
