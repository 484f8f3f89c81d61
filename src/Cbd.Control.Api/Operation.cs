using System.Text.Json.Serialization.Metadata;
using System.Text.RegularExpressions;

namespace Cbd.Control.Api;

/// <summary>One operation of the control API: the verb that it belongs to, and how it is written in HTTP.</summary>
public abstract partial class Operation
{
    private protected Operation(string name, string method, string path, string summary)
    {
        Name = name;
        Method = method;
        Path = path;
        Summary = summary;
        PathParameters = [.. PathParameter().Matches(path).Select(match => match.Groups[1].Value)];
    }

    /// <summary>Name of the verb.</summary>
    public string Name { get; }

    /// <summary>GET, POST, PUT or DELETE.</summary>
    public string Method { get; }

    /// <summary>The address, with the ids of the request in braces: <c>/v1/transports/{transport}</c>.</summary>
    public string Path { get; }

    public string Summary { get; }

    /// <summary>Names of the ids in <see cref="Path"/>, in their order: the transport, then the item on it.</summary>
    public IReadOnlyList<string> PathParameters { get; }

    /// <summary>The request has a JSON body. Without one, what is not in the path is in the query.</summary>
    public bool HasBody => Method is "POST" or "PUT";

    /// <summary>It changes nothing: who may look may have it.</summary>
    public bool IsLook => Method == "GET";

    /// <summary>The answer has a JSON body; without one the status is 204.</summary>
    public abstract bool HasContent { get; }

    internal abstract JsonTypeInfo RequestJson { get; }

    internal abstract JsonTypeInfo AnswerJson { get; }

    /// <summary>Does the operation for a caller who knows its types at run time only.</summary>
    internal abstract object Execute(IControl control, ControlRequest request);

    /// <summary>Checks what can be checked without a host: ranges of numbers, forms of texts.</summary>
    /// <exception cref="CbdException">A value is wrong: the line names it, and what is possible.</exception>
    internal void Check(ControlRequest request)
    {
        if (request is TransportTarget transport)
            Rules.CheckId(transport.Transport, PathParameters[0]);
        if (request is ItemTarget item)
            Rules.CheckId(item.Id, PathParameters[1]);
        request.CheckValues();
    }

    /// <summary>The path with the ids of a request, and the query, if it has any.</summary>
    internal string Address(ControlRequest request)
    {
        string address = Path;
        if (request is TransportTarget transport)
            address = address.Replace($"{{{PathParameters[0]}}}", $"{transport.Transport}", StringComparison.Ordinal);
        if (request is ItemTarget item)
            address = address.Replace($"{{{PathParameters[1]}}}", $"{item.Id}", StringComparison.Ordinal);
        if (HasBody)
            return address;
        var query = new List<string>();
        foreach (JsonPropertyInfo property in RequestJson.Properties)
        {
            if (property.Get!(request) is { } value)
                query.Add($"{property.Name}={(value is bool flag ? flag ? "true" : "false" : value)}");
        }

        return query.Count == 0 ? address : $"{address}?{string.Join('&', query)}";
    }

    [GeneratedRegex(@"\{(\w+)\}")]
    private static partial Regex PathParameter();
}

/// <inheritdoc/>
public sealed class Operation<TRequest, TAnswer> : Operation
    where TRequest : ControlRequest
    where TAnswer : class
{
    /// <param name="name">Name of the verb.</param>
    /// <param name="method">See <see cref="Operation.Method"/>.</param>
    /// <param name="path">See <see cref="Operation.Path"/>.</param>
    /// <param name="summary">One line for the description of the API.</param>
    /// <param name="withoutContent">What an answer without content means; null: the answer has content.</param>
    internal Operation(string name, string method, string path, string summary, TAnswer? withoutContent = null)
        : base(name, method, path, summary) => WithoutContent = withoutContent;

    public override bool HasContent => WithoutContent is null;

    internal TAnswer? WithoutContent { get; }

    internal override JsonTypeInfo RequestJson => ControlJson.Plain.Of<TRequest>();

    internal override JsonTypeInfo AnswerJson => ControlJson.Plain.Of<TAnswer>();

    internal override object Execute(IControl control, ControlRequest request) => control.Execute(this, (TRequest)request);
}
