// Answers for the JSON5 library of npm: a list of [question, text] on standard input, a list of answers on standard
// output. A text that is refused is answered with null. The questions:
//
//   read5        the value of a JSON5 text, as JSON.stringify prints it
//   read         the value of a JSON text, likewise
//   print        a JSON text as JSON5.stringify prints its value
//   identifiers  two lists of code points in one JSON text: what an unquoted key may start with, and go on with
'use strict'

const { readFileSync } = require('node:fs')
const JSON5 = require('json5')
const characters = require('json5/lib/util')

// The library warns of U+2028 in strings, and reads them all the same.
console.warn = () => {}

const codePoints = (belongs) => {
  const members = []
  for (let point = 0; point <= 0x10ffff; point++) {
    if (belongs(String.fromCodePoint(point))) members.push(point)
  }
  return members
}

const answers = {
  read5: (text) => JSON.stringify(JSON5.parse(text)),
  read: (text) => JSON.stringify(JSON.parse(text)),
  print: (text) => JSON5.stringify(JSON.parse(text)),
  identifiers: () => JSON.stringify([codePoints(characters.isIdStartChar), codePoints(characters.isIdContinueChar)]),
}

const answer = ([question, text]) => {
  try {
    return answers[question](text)
  } catch (error) {
    if (error instanceof SyntaxError) return null
    throw error
  }
}

process.stdout.write(JSON.stringify(JSON.parse(readFileSync(0, 'utf8')).map(answer)))
