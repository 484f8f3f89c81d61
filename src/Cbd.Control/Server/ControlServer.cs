using System.Net.Sockets;
using Cbd.Memory;
using Cbd.Memory.Sockets;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Connections.Features;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace Cbd.Control.Server;

/// <summary>
/// The control API on a Unix socket. Built from nothing: no configuration is read from files, the environment or the
/// working directory. Start and stop are not thread-safe; requests are handled concurrently.
/// </summary>
internal sealed class ControlServer : IAsyncDisposable
{
    public const string ProblemContentType = "application/problem+json";

    /// <summary>Largest body of a request, bytes; the largest sensible one is a path and a few numbers.</summary>
    public const int MaxBodyBytes = 64 << 10;

    /// <summary>How long a client may take for the head of a request.</summary>
    private const int HeadSeconds = 10;

    /// <summary>How long a connection stays between two requests.</summary>
    private const int QuietSeconds = 60;

    /// <summary>Clients that wait to be accepted.</summary>
    private const int Backlog = 512;

    private readonly WebApplication _application;
    private readonly string? _ownPath;
    private readonly FileStatus _ownFile;

    private ControlServer(WebApplication application, string? ownPath)
    {
        _application = application;
        if (ownPath is not null && FileStatus.TryGet(ownPath, out _ownFile, followLinks: false) == 0)
            _ownPath = ownPath;
    }

    /// <summary>
    /// Binds <paramref name="socketPath"/>, which must not exist, and answers on it. The socket's mode is 0600, with a
    /// group 0660 and that group, with two of them 0666. With a <paramref name="given"/> socket, which is bound there already, that one is
    /// answered on; it stays the caller's, and its file and mode are whoever's who made it.
    /// </summary>
    public static async Task<ControlServer> StartAsync(
        CheckedControl control, string socketPath, PeerAccess access, ILoggerProvider logs, StreamSocket? given = null)
    {
        var application = Build(control, socketPath, access, logs, given);
        try
        {
            await application.StartAsync();
            return new ControlServer(application, given is null ? socketPath : null);
        }
        catch (Exception e) when (e is IOException or SocketException or CbdException)
        {
            await application.DisposeAsync();
            throw e as CbdException
                ?? new CbdException(CbdErrorKind.Failed, $"cannot listen on the control socket '{socketPath}': {e.Message}", e);
        }
    }

    /// <summary>Ends what is under way (for a few seconds at most), and removes the socket if it made it.</summary>
    public async ValueTask DisposeAsync()
    {
        using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(5));
        await _application.StopAsync(patience.Token);
        await _application.DisposeAsync();
        // Somebody may have put something else there meanwhile; that stays.
        if (_ownPath is not null && FileStatus.TryGet(_ownPath, out var now, followLinks: false) == 0 && now.IsSameFile(_ownFile))
            File.Delete(_ownPath);
    }

    private static WebApplication Build(CheckedControl control, string socketPath, PeerAccess access, ILoggerProvider logs, StreamSocket? given)
    {
        var clients = new ControlConnections(ControlConnections.LimitFor(ProcessLimits.OpenFiles));
        var verbs = new VerbGate(clients);
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions
        {
            ApplicationName = "cbdd",
            EnvironmentName = Environments.Production,
            ContentRootPath = "/",
        });
        builder.Logging.AddProvider(logs).SetMinimumLevel(LogLevel.Warning);
        builder.Services.AddSingleton<IHostLifetime, NoLifetime>();
        builder.Services.AddRoutingCore();
        builder.WebHost.UseKestrelCore();
        builder.WebHost.ConfigureKestrel(kestrel =>
        {
            kestrel.AddServerHeader = false;
            kestrel.Limits.MaxRequestBodySize = MaxBodyBytes;
            kestrel.Limits.RequestHeadersTimeout = TimeSpan.FromSeconds(HeadSeconds);
            kestrel.Limits.KeepAliveTimeout = TimeSpan.FromSeconds(QuietSeconds);
            kestrel.ListenUnixSocket(socketPath, listen => listen.Use(next => connection => Serve(connection, next, clients, access)));
        });
        builder.Services.AddSingleton<IConnectionListenerFactory>(services => new ControlListener(
            endpoint => given?.DuplicateAsSocket() ?? Bind(endpoint, access),
            services.GetRequiredService<ILoggerFactory>().CreateLogger("control")));

        var application = builder.Build();
        application.Use(next => context => AnswerProblems(context, next));
        application.UseRouting();
        foreach (var operation in Operations.All)
            application.MapMethods(operation.Path, [operation.Method], new OperationEndpoint(operation, control, verbs).Serve);
        var document = new Lazy<byte[]>(OpenApiDocument.Write);
        application.MapMethods(OpenApiDocument.Path, ["GET"], context =>
        {
            context.Response.ContentType = "application/json;charset=utf-8";
            return context.Response.Body.WriteAsync(document.Value, context.RequestAborted).AsTask();
        });
        return application;
    }

    private static Socket Bind(System.Net.EndPoint endpoint, PeerAccess access)
    {
        var path = endpoint.ToString()!;
        // .NET's own socket would remove, at its end, whatever has its name then.
        var address = endpoint.Serialize();
        using var socket = StreamSocket.TryListen(address.Buffer.Span[..address.Size], Backlog, out var error)
            ?? throw new SystemCallException("bind", error, path);
        try
        {
            // The directory is one that nobody else can write to: nothing has taken the place of the socket. Nobody else can connect before its
            // mode is set, because the umask takes the right to write away.
            var mode = UnixFileMode.UserRead | UnixFileMode.UserWrite;
            File.SetUnixFileMode(path, mode);
            if (access.FileGroup is { } group)
            {
                mode |= UnixFileMode.GroupRead | UnixFileMode.GroupWrite;
                ControlSyscalls.ChangeGroup(path, group.Id);
            }

            if (access.IsForAll)
                mode |= UnixFileMode.OtherRead | UnixFileMode.OtherWrite;
            File.SetUnixFileMode(path, mode);
            return socket.DuplicateAsSocket();
        }
        catch
        {
            _ = StreamSocket.Unlink(path);
            throw;
        }
    }

    private static async Task Serve(ConnectionContext connection, ConnectionDelegate next, ControlConnections clients, PeerAccess access)
    {
        var client = new ControlConnection(() => connection.Abort(new ConnectionAbortedException("others came, and it has done nothing for longest")));
        if (!clients.TryEnter(client))
            return;
        try
        {
            connection.Items[typeof(ControlConnection)] = client;
            connection.Items[typeof(PeerAccess)] = Admit(connection, access);
            await next(connection);
        }
        catch (OutOfMemoryException)
        {
            // What cannot be had fails this client; Kestrel would call it a bug.
            connection.Abort(new ConnectionAbortedException("there is no memory for it"));
        }
        finally
        {
            clients.Leave(client);
        }
    }

    /// <summary>The peer of a request, which was let in.</summary>
    /// <exception cref="CbdException">It was not.</exception>
    internal static AdmittedPeer PeerOf(HttpContext context) =>
        context.Features.Get<IConnectionItemsFeature>()?.Items[typeof(PeerAccess)] switch
        {
            AdmittedPeer peer => peer,
            string refusal => throw new CbdException(CbdErrorKind.Denied, refusal),
            _ => throw new InvalidOperationException("nobody looked who is at the other end of a control connection"),
        };

    /// <summary>An <see cref="AdmittedPeer"/>, or the line that refuses it.</summary>
    private static object Admit(ConnectionContext connection, PeerAccess access)
    {
        try
        {
            var socket = connection.Features.Get<IConnectionSocketFeature>()?.Socket
                ?? throw new InvalidOperationException("a control connection has no socket");
            return access.Admit(Peer.Of(socket));
        }
        catch (CbdException e)
        {
            return e.Message;
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            return $"control client without the right: the kernel does not say who it is ({e.Message})";
        }
    }

    private static async Task AnswerProblems(HttpContext context, RequestDelegate next)
    {
        ControlProblem problem;
        try
        {
            _ = PeerOf(context);
            await next(context);
            if (context.Response.StatusCode < 400 || context.Response.HasStarted)
                return;
            problem = OfStatus(context.Request, context.Response.StatusCode);
        }
        catch (CbdException e)
        {
            problem = ControlProblem.From(e.Kind, e.Message);
        }
        catch (BadHttpRequestException e)
        {
            problem = e.StatusCode == StatusCodes.Status400BadRequest
                ? ControlProblem.From(CbdErrorKind.Invalid, $"the request is not right: {e.Message}")
                : OfStatus(context.Request, e.StatusCode);
        }
        catch (OutOfMemoryException e)
        {
            // Also what the runtime throws when no thread can be had.
            context.RequestServices.GetRequiredService<ILoggerFactory>().CreateLogger("control")
                .LogError("{Method} {Path}: no thread, or no memory: {Reason}", context.Request.Method, context.Request.Path, e.Message);
            problem = ControlProblem.From(CbdErrorKind.Exhausted,
                "cbdd cannot have another thread or more memory: raise its limits (TasksMax= and MemoryMax= of its unit, ulimit -u and -v), then try again");
        }
        catch (Exception e) when (!context.RequestAborted.IsCancellationRequested)
        {
            // A bug of ours in one request must not take the disks of others down, and must be seen.
            context.RequestServices.GetRequiredService<ILoggerFactory>().CreateLogger("control")
                .LogError(e, "{Method} {Path} failed inside", context.Request.Method, context.Request.Path);
            problem = ControlProblem.From(CbdErrorKind.Failed,
                $"this is a bug in cbdd, please report it: {e.GetType().Name}: {e.Message}");
        }

        if (context.Response.HasStarted)
            return;
        context.Response.StatusCode = problem.Status;
        await context.Response.WriteAsJsonAsync(problem, ControlJson.Plain.Of<ControlProblem>(), ProblemContentType);
    }

    /// <summary>What is refused without words.</summary>
    private static ControlProblem OfStatus(HttpRequest request, int status)
    {
        var what = $"{request.Method} {request.Path}{request.QueryString}";
        return status switch
        {
            404 => ControlProblem.From(CbdErrorKind.NotFound, $"there is no {what}; {OpenApiDocument.Path} describes what there is"),
            405 => ControlProblem.From(CbdErrorKind.Invalid, $"{what} is not a method of it; {OpenApiDocument.Path} describes them"),
            413 => ControlProblem.From(CbdErrorKind.Invalid, $"the body of {what} is longer than {MaxBodyBytes} bytes"),
            415 => ControlProblem.From(CbdErrorKind.Invalid, $"the body of {what} is not application/json; send it with that content type"),
            _ => ControlProblem.From(CbdErrorKind.Invalid, $"{what} has an argument that is not right; {OpenApiDocument.Path} describes them"),
        } with
        {
            Status = status,
        };
    }

    /// <summary>Signals are the program's business, not the web host's.</summary>
    private sealed class NoLifetime : IHostLifetime
    {
        public Task WaitForStartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

        public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;
    }
}
