// Package browser has the tests of the operator's page in a real Chromium: "make
// browser", build tag browser.
package browser
