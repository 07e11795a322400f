package main
import "context"
func million(context.Context, settings) error { return nil }
func cold(context.Context, settings) error { return nil }
func refresh(context.Context, settings) error { return nil }
func labRole([]string) error { return nil }
