package main

import "context"

func refresh(context.Context, settings) error { return nil }
