package httpapi

func (a *API) registerWrites() {}
