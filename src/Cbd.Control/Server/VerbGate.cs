using Cbd.Memory;
using Microsoft.AspNetCore.Connections.Features;
using Microsoft.AspNetCore.Http;

namespace Cbd.Control.Server;

/// <summary>
/// Does verbs. Those that change something may take long, and each has a thread of its own meanwhile: so many are done at once, and
/// more wait, without a thread. What only lists does not wait for them. Thread-safe.
/// </summary>
internal sealed class VerbGate(ControlConnections clients)
{
    /// <summary>Verbs at once that change something.</summary>
    public const int VerbsAtOnce = 16;

    private readonly SemaphoreSlim _places = new(VerbsAtOnce);

    /// <summary>For verbs where no thread can be had: a stop must be possible then, and one of the pool's threads is enough.</summary>
    private readonly SemaphoreSlim _withoutThread = new(1);

    /// <summary>The answer of the operation. Its client stays meanwhile.</summary>
    public async Task<object> Do(HttpContext context, Operation operation, ControlRequest request, CheckedControl control)
    {
        ControlConnection client = (ControlConnection?)context.Features.Get<IConnectionItemsFeature>()?.Items[typeof(ControlConnection)]
            ?? throw new InvalidOperationException("a control connection has no client");
        bool isList = operation.Method == HttpMethods.Get;
        if (!isList)
            await _places.WaitAsync(context.RequestAborted);
        try
        {
            clients.BeginVerb(client);
            return isList ? operation.Execute(control, request) : await DoOnThread(() => operation.Execute(control, request));
        }
        finally
        {
            clients.EndVerb(client);
            if (!isList)
                _places.Release();
        }
    }

    private async Task<object> DoOnThread(Func<object> verb)
    {
        var done = new TaskCompletionSource<object>(TaskCreationOptions.RunContinuationsAsynchronously);
        if (NeededThread.TryBegin(new Thread(Run) { IsBackground = true, Name = "cbd-verb" }))
            return await done.Task;
        await _withoutThread.WaitAsync();
        try
        {
            return verb();
        }
        finally
        {
            _withoutThread.Release();
        }

        void Run()
        {
            try
            {
                done.SetResult(verb());
            }
            catch (Exception e)
            {
                done.SetException(e);
            }
        }
    }
}
