// Judge says what two tools that people trust think of a Kubernetes object: kstatus, which Flux and `helm --wait` use,
// and an Argo CD health check in Lua, run as Argo CD runs it.
//
//	judge <health.lua> < object.json
//
// prints {"kstatus": ..., "argocd": ..., with their messages}.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

type verdict struct {
	Kstatus        string `json:"kstatus"`
	KstatusMessage string `json:"kstatusMessage"`
	Argocd         string `json:"argocd"`
	ArgocdMessage  string `json:"argocdMessage"`
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: judge <health.lua> < object.json")
		os.Exit(2)
	}
	found, err := judge(os.Args[1])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(found)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "judge:", err)
		os.Exit(1)
	}
}

func judge(script string) (*verdict, error) {
	object := map[string]any{}
	decoder := json.NewDecoder(os.Stdin)
	if err := decoder.Decode(&object); err != nil {
		return nil, fmt.Errorf("failed to read the object: %w", err)
	}
	// kstatus wants whole numbers as int64, as the API machinery decodes them.
	result, err := status.Compute(&unstructured.Unstructured{Object: whole(object).(map[string]any)})
	if err != nil {
		return nil, fmt.Errorf("failed to compute kstatus: %w", err)
	}
	health, message, err := argocd(script, object)
	if err != nil {
		return nil, err
	}
	return &verdict{string(result.Status), result.Message, health, message}, nil
}

// argocd runs a health check: the object is the global `obj`, the answer a table with `status` and `message`.
func argocd(script string, object map[string]any) (string, string, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	// The libraries that Argo CD opens for every script.
	for name, open := range map[string]lua.LGFunction{
		lua.LoadLibName: lua.OpenPackage, lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable,
	} {
		if err := state.CallByParam(lua.P{Fn: state.NewFunction(open), NRet: 0, Protect: true}, lua.LString(name)); err != nil {
			return "", "", fmt.Errorf("failed to open the library %s: %w", name, err)
		}
	}
	state.SetGlobal("obj", value(state, object))
	if err := state.DoFile(script); err != nil {
		return "", "", fmt.Errorf("failed to run %s: %w", script, err)
	}
	answer, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return "", "", fmt.Errorf("%s returned no table", script)
	}
	text := func(key string) string {
		found := state.GetField(answer, key)
		if found == lua.LNil {
			return ""
		}
		return found.String()
	}
	return text("status"), text("message"), nil
}

func value(state *lua.LState, given any) lua.LValue {
	switch given := given.(type) {
	case nil:
		return lua.LNil
	case bool:
		return lua.LBool(given)
	case float64:
		return lua.LNumber(given)
	case string:
		return lua.LString(given)
	case []any:
		table := state.NewTable()
		for _, item := range given {
			table.Append(value(state, item))
		}
		return table
	case map[string]any:
		table := state.NewTable()
		for key, item := range given {
			table.RawSetString(key, value(state, item))
		}
		return table
	}
	return lua.LNil
}

func whole(given any) any {
	switch given := given.(type) {
	case float64:
		if given == float64(int64(given)) {
			return int64(given)
		}
		return given
	case []any:
		items := make([]any, len(given))
		for index, item := range given {
			items[index] = whole(item)
		}
		return items
	case map[string]any:
		items := make(map[string]any, len(given))
		for key, item := range given {
			items[key] = whole(item)
		}
		return items
	}
	return given
}
