// Package export_wit_world is where the generated export looks for the agent.
package export_wit_world

import witTypes "example.com/persist/guest-sdk/go/internal/wit/types"

// Agent is the function that Run calls.
var Agent func(args []string) witTypes.Result[string, string]

// Run runs the agent once.
func Run(args []string) witTypes.Result[string, string] {
	if Agent == nil {
		return witTypes.Err[string]("this program has no agent: call persist.Agent in an init function")
	}
	return Agent(args)
}
