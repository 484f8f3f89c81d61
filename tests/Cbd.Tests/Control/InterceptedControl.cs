namespace Cbd.Tests.Control;

/// <summary>Passes everything on; a test looks at each request, changes it or throws, before it is done or after.</summary>
internal sealed class InterceptedControl(IControl inner, Func<ControlRequest, ControlRequest> intercept, Action<ControlRequest>? after = null) : IControl
{
    public TAnswer Execute<TRequest, TAnswer>(Operation<TRequest, TAnswer> operation, TRequest request)
        where TRequest : ControlRequest
        where TAnswer : class
    {
        TAnswer answer = inner.Execute(operation, (TRequest)intercept(request));
        after?.Invoke(request);
        return answer;
    }
}
