namespace Cbd.Control.Api;

/// <summary>Does each operation with the method that was added for it. Thread-safe once all are added, if the methods are.</summary>
internal sealed class OperationHandlers : IControl
{
    private readonly Dictionary<Operation, Delegate> _handlers = [];

    public IEnumerable<Operation> Operations => _handlers.Keys;

    public OperationHandlers Add<TRequest, TAnswer>(Operation<TRequest, TAnswer> operation, Func<TRequest, TAnswer> handler)
        where TRequest : ControlRequest
        where TAnswer : class
    {
        _handlers.Add(operation, handler);
        return this;
    }

    /// <summary>The same for an operation that answers nothing.</summary>
    public OperationHandlers Add<TRequest>(Operation<TRequest, Done> operation, Action<TRequest> handler)
        where TRequest : ControlRequest =>
        Add(operation, request =>
        {
            handler(request);
            return Done.Instance;
        });

    public TAnswer Execute<TRequest, TAnswer>(Operation<TRequest, TAnswer> operation, TRequest request)
        where TRequest : ControlRequest
        where TAnswer : class =>
        _handlers.TryGetValue(operation, out Delegate? handler)
            ? ((Func<TRequest, TAnswer>)handler)(request)
            : throw new InvalidOperationException($"operation {operation.Name} has no handler");
}
