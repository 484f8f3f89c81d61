namespace Cbd.Tests.Control;

/// <summary>Passes everything on; a test looks at each request, changes it or throws.</summary>
internal sealed class InterceptedControl(IControl inner, Func<ControlRequest, ControlRequest> intercept) : IControl
{
    public TAnswer Execute<TRequest, TAnswer>(Operation<TRequest, TAnswer> operation, TRequest request)
        where TRequest : ControlRequest
        where TAnswer : class =>
        inner.Execute(operation, (TRequest)intercept(request));
}
