namespace Cbd.Control.Api;

/// <summary>
/// Something that does operations: a host in this process, a gate in front of it, or a daemon at the other end of a control
/// socket. Thread-safe and synchronous.
/// </summary>
public interface IControl
{
    /// <exception cref="CbdException">One line for the operator. Nothing was changed then, unless the line says so.</exception>
    TAnswer Execute<TRequest, TAnswer>(Operation<TRequest, TAnswer> operation, TRequest request)
        where TRequest : ControlRequest
        where TAnswer : class;
}
